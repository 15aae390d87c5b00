#!/usr/bin/env bash
# Installs raytrain at its lock on a node of a launched cluster:
#   install.sh PYTHON EXTRAS [PACKAGE]...     for example: install.sh 3.11 s3,deepspeed boto3
# PYTHON is the version of Python of whoever launches: Ray refuses to join processes of different ones. It runs again at every
# `raytrain cluster up` and does nothing where all of this is installed already.
set -euo pipefail
cd "$(dirname "$0")/.."
python_version=$1 extras=$2
shift 2
home=$HOME/.raytrain-environment
sum=$( (cat constraints.txt pyproject.toml && find raytrain -type f -exec sha256sum {} + | sort -k 2 && echo "$python_version $extras $*") | sha256sum)
if [ -f "$home/installed" ] && [ "$(cat "$home/installed")" = "$sum" ]; then
  echo "raytrain is installed"
  exit 0
fi
# The image's own Python may be older than 3.11; uv brings the one that was asked for, from GitHub or UV_PYTHON_INSTALL_MIRROR.
# A machine that has just begun updates itself; its lock is waited for.
python3 -m venv --help >/dev/null 2>&1 && python3 -c 'import ensurepip' 2>/dev/null ||
  (sudo apt-get -o DPkg::Lock::Timeout=300 update -qq &&
    sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq python3-venv)
[ -x "$HOME/.uv/bin/uv" ] || { python3 -m venv "$HOME/.uv" && "$HOME/.uv/bin/pip" install -q uv==0.13.8; }
# The index gives torch with CUDA where the lock names its version alone.
"$HOME/.uv/bin/uv" venv -q --clear --python "$python_version" "$home"
"$HOME/.uv/bin/uv" pip install -q --python "$home/bin/python" -c constraints.txt ".[$extras]" "$@"
# In front, since .bashrc may return early; token authentication is on for whoever types `ray` here, too.
touch "$HOME/.bashrc"
for line in 'export RAY_AUTH_MODE=token' "export PATH=\"$home/bin:\$PATH\""; do
  grep -qxF "$line" "$HOME/.bashrc" || { echo "$line" | cat - "$HOME/.bashrc" >"$HOME/.bashrc.new" && mv "$HOME/.bashrc.new" "$HOME/.bashrc"; }
done
echo "$sum" >"$home/installed"
