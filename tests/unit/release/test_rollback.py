"""Back to the version before: what must hold, and that whoever is killed leaves old or new."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killed_at_a_change import run_until
from releases import Trained, make_release, release

from raytrain.errors import ConfigError, IntegrityError, RefusedError, StorageError
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import default_policy
from raytrain.release.gate.promote import Desk, Wanted, promote
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
from raytrain.release.signing import sign
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

PLAIN = RollbackOptions()


def test_what_was_withdrawn_is_passed_over(hangar: Hangar) -> None:
    hangar.registry.withdraw("sums", Version(1, 1, 0), why="bad rows")
    with pytest.raises(RefusedError, match="was withdrawn") as told:
        back(hangar, RollbackOptions(to=Version(1, 1, 0)))
    assert "bad rows" in told.value.why
    with pytest.raises(RefusedError, match="was withdrawn"):
        require_released(hangar.registry, "sums@1.1.0", hangar.ring)
    assert back(hangar) == "1.0.0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.0.0, 1.1.0 and 1.2.0 came to production one after another, by a policy that asks for a signature alone."""
    folder = tmp_path_factory.mktemp("rollback")
    ring, registry = KeyRing(folder / "keys"), Registry(folder / "registry")
    ring.generate("release")
    for i in range(3):
        release(registry, ring, folder / f"bundle-{i}", Trained(dataset=f"sha256:rows {i}"), f"1.{i}.0")
        let_in(registry, ring, f"1.{i}.0")
    return folder


@pytest.fixture
def hangar(whole: Path, tmp_path: Path) -> Hangar:
    for name in ("keys", "registry"):
        shutil.copytree(whole / name, tmp_path / name)
    return Hangar(
        Registry(tmp_path / "registry"), KeyRing(tmp_path / "keys"), Location(str(tmp_path / "cache"))
    )


def let_in(registry: Registry, ring: KeyRing, version: str) -> None:
    desk = Desk(registry, ring, Shelves(Location(str(Path(registry.place).parent / "storage"))))
    policy = default_policy()
    lax = policy.section.targets[0].model_copy(update={"to": "production"})
    policy = replace(policy, section=policy.section.model_copy(update={"targets": [lax]}))
    done = promote(desk, Wanted(f"sums@{version}", "production", policy), ring.signing_key("release"))
    assert done.moved, done.judged.outcome


def back(hangar: Hangar, options: RollbackOptions = PLAIN) -> str:
    done = roll_back(hangar, "sums", hangar.ring.signing_key("release"), options)
    assert done.moved
    return str(hangar.registry.state("sums").aliases["production"])


def bundle_of(hangar: Hangar, version: str) -> Path:
    return hangar.registry.verified(f"sums@{version}", hangar.ring).artifact.path


def test_it_goes_back_and_further_back_and_serving_takes_it(hangar: Hangar) -> None:
    rehearsed = roll_back(hangar, "sums", hangar.ring.signing_key("release"), RollbackOptions(rehearse=True))
    assert not rehearsed.moved and rehearsed.record is None
    assert str(hangar.registry.state("sums").aliases["production"]) == "1.2.0"
    assert list(rehearsed.seconds) == ["verify", "compatible", "weights"]
    assert back(hangar) == "1.1.0"
    entry = hangar.registry.state("sums").moved["production"]
    assert entry.why == "rolled back from 1.2.0" and entry.details["decision"]
    admitted = require_released(hangar.registry, "sums@production", hangar.ring)
    assert admitted.about.dataset == "sha256:rows 1"
    assert back(hangar) == "1.0.0"
    with pytest.raises(RefusedError, match="no version before"):
        back(hangar)
    assert back(hangar, RollbackOptions(to=Version(1, 2, 0), why="it was not to blame")) == "1.2.0"
    assert hangar.registry.state("sums").moved["production"].why == "it was not to blame"
    require_released(hangar.registry, "sums@production", hangar.ring)


def test_an_older_version_that_was_promoted_again_is_gone_back_from(hangar: Hangar) -> None:
    let_in(hangar.registry, hangar.ring, "1.0.0")
    assert back(hangar) == "1.2.0", "what served until then"
    assert back(hangar) == "1.1.0"
    with pytest.raises(RefusedError, match="no version before"):
        back(hangar)


def test_what_serves_now_is_gone_back_to_where_its_record_counts_no_more(hangar: Hangar) -> None:
    ring, registry = hangar.ring, hangar.registry
    on_call = ring.generate("on-call")
    roll_back(hangar, "sums", ring.signing_key("on-call"), PLAIN)
    stays = RollbackOptions(to=Version(1, 1, 0))
    with pytest.raises(ConfigError, match="by a record that counts") as caught:
        back(hangar, stays)
    assert caught.value.what == "sums cannot go back to 1.1.0"
    ring.revoke(on_call.id, "a laptop was lost")
    with pytest.raises(RefusedError, match="revoked"):
        require_released(registry, "sums@production", ring)
    assert back(hangar, stays) == "1.1.0"
    require_released(registry, "sums@production", ring)
    assert str(registry.state("sums").aliases["previous"]) == "1.2.0"
    assert back(hangar) == "1.0.0"


def test_a_way_back_by_a_revoked_key_does_not_bar_the_next_one(hangar: Hangar) -> None:
    on_call = hangar.ring.generate("on-call")
    roll_back(hangar, "sums", hangar.ring.signing_key("on-call"), PLAIN)
    let_in(hangar.registry, hangar.ring, "1.2.0")
    hangar.ring.revoke(on_call.id, "a laptop was lost")
    assert back(hangar) == "1.1.0"


def test_each_step_tells_how_long_it_took(hangar: Hangar) -> None:
    done = roll_back(hangar, "sums", hangar.ring.signing_key("release"), PLAIN)
    assert list(done.seconds) == ["verify", "compatible", "weights", "record", "switch"]
    assert min(done.seconds.values()) > 0 and sum(done.seconds.values()) < 5
    assert (
        done.record is not None and not json.loads((done.record.path / "record.json").read_text())["loaded"]
    )


def spoil_weights(hangar: Hangar) -> None:
    (bundle_of(hangar, "1.1.0") / "adapter" / "adapter_model.safetensors").write_bytes(b"nothing")


def strip_signature(hangar: Hangar) -> None:
    place = bundle_of(hangar, "1.1.0")
    place.with_name(f"{place.name}.sig").unlink()


def strip_record(hangar: Hangar) -> None:
    decision = hangar.registry.entries("sums")[3].details["decision"]
    shutil.rmtree(Path(shelf_of(hangar.registry, "sums", "records").place) / decision[7:])


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (spoil_weights, IntegrityError, "adapter_model.safetensors"),
        (strip_signature, RefusedError, "is not signed"),
        (strip_record, IntegrityError, "is not in"),
    ],
)
def test_what_does_not_verify_is_not_gone_back_to(
    spoil: Callable[[Hangar], None], kind: type[Exception], words: str, hangar: Hangar
) -> None:
    spoil(hangar)
    before = hangar.registry.entries("sums")
    with pytest.raises(kind, match=words):
        back(hangar)
    assert hangar.registry.entries("sums") == before
    assert back(hangar, RollbackOptions(to=Version(1, 0, 0))) == "1.0.0", "further back it goes"


def test_a_version_whose_key_was_revoked_is_not_gone_back_to(hangar: Hangar, tmp_path: Path) -> None:
    ring = hangar.ring
    ring.rotate("release")
    trained = Trained(dataset="sha256:new")
    release(hangar.registry, ring, tmp_path / "new", trained, "1.3.0")
    let_in(hangar.registry, ring, "1.3.0")
    ring.revoke(ring.known()[0].id, "a laptop was lost")
    with pytest.raises(RefusedError, match="revoked"):
        back(hangar)


def test_damage_of_what_serves_now_is_no_reason_to_stay(hangar: Hangar) -> None:
    (bundle_of(hangar, "1.2.0") / "bundle.json").write_text("{")
    done = roll_back(hangar, "sums", hangar.ring.signing_key("release"), PLAIN)
    assert done.moved and [one.thing for one in done.fits] == ["base model"]
    assert "cannot be read" in done.notes[0] and "made from: base model" in done.notes[0]


@pytest.fixture
def over_another_base(hangar: Hangar, tmp_path: Path) -> Trained:
    """Of 2.0.0, which serves now."""
    trained = Trained(base_model="sha256:" + "b" * 64)
    release(hangar.registry, hangar.ring, tmp_path / "major", trained, "2.0.0")
    let_in(hangar.registry, hangar.ring, "2.0.0")
    return trained


def revoke_its_key(hangar: Hangar) -> None:
    key = hangar.ring.generate("second")
    sign(bundle_of(hangar, "2.0.0"), hangar.ring.signing_key("second"))
    hangar.ring.revoke(key.id, "a laptop was lost")


def damage_it(hangar: Hangar) -> None:
    (bundle_of(hangar, "2.0.0") / "bundle.json").write_text("{")


@pytest.mark.parametrize("spoil", [revoke_its_key, damage_it])
def test_what_serves_now_and_does_not_verify_is_compared_by_the_journal(
    spoil: Callable[[Hangar], None], hangar: Hangar, over_another_base: Trained
) -> None:
    spoil(hangar)
    with pytest.raises(RefusedError, match="does not fit what serves now") as caught:
        back(hangar)
    assert over_another_base.base_model in caught.value.why and Trained().base_model in caught.value.why
    assert back(hangar, RollbackOptions(other_base=True)) == "1.2.0"


def test_a_store_that_does_not_answer_is_no_damage_of_what_serves_now(
    hangar: Hangar, over_another_base: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, serving = hangar.registry.store, hangar.registry.find("sums@2.0.0").digest[7:]
    real = store.open_bundle

    def opened(name: str, digest: str, scratch: Path | None = None) -> Path:
        if (name, digest) == ("sums", serving):
            raise StorageError("cannot read a bundle", why="503 Slow Down", fix="try again")
        return real(name, digest, scratch)

    monkeypatch.setattr(store, "open_bundle", opened)
    before = hangar.registry.entries("sums")
    with pytest.raises(StorageError, match="cannot read a bundle"):
        back(hangar)
    assert hangar.registry.entries("sums") == before


def test_where_nothing_says_what_serves_now_was_made_from_that_is_said(
    hangar: Hangar, tmp_path: Path
) -> None:
    registry, ring = hangar.registry, hangar.ring
    make_release(tmp_path / "bare", Trained(dataset="sha256:bare"))
    sign(tmp_path / "bare", ring.signing_key("release"))
    registry.register("sums", Version(1, 3, 0), tmp_path / "bare", ring, made_from={}, why="a test")
    let_in(registry, ring, "1.3.0")
    (bundle_of(hangar, "1.3.0") / "bundle.json").write_text("{")
    done = roll_back(hangar, "sums", ring.signing_key("release"), PLAIN)
    assert done.moved and done.fits == [] and "not compared with it" in done.notes[0]


def test_another_base_is_refused_with_both_digests(hangar: Hangar, tmp_path: Path) -> None:
    trained = Trained(base_model="sha256:" + "b" * 64, tokenizer="sha256:" + "c" * 64)
    release(hangar.registry, hangar.ring, tmp_path / "major", trained, "2.0.0")
    let_in(hangar.registry, hangar.ring, "2.0.0")
    with pytest.raises(RefusedError) as caught:
        back(hangar)
    for digest in (trained.base_model, trained.tokenizer, Trained().base_model, Trained().tokenizer):
        assert digest in caught.value.why
    assert back(hangar, RollbackOptions(other_base=True)) == "1.2.0"


def test_one_that_moved_meanwhile_stays_where_it_was_moved(hangar: Hangar) -> None:
    def meddle(step: str) -> None:
        if step == "switch":
            registry = hangar.registry
            registry.move(
                "sums", "production", Version(1, 0, 0), expected=Version(1, 2, 0), decision=None, why="mine"
            )

    with pytest.raises(RefusedError, match="was not moved"):
        back(replace(hangar, tell=meddle))
    assert str(hangar.registry.state("sums").aliases["production"]) == "1.0.0"


def test_who_serves_has_loaded_it_before_the_switch(hangar: Hangar) -> None:
    asked: list[tuple[str, str, str]] = []

    def load(reference: str, digest: str) -> str:
        now = str(hangar.registry.state("sums").aliases["production"])
        asked.append((reference, digest, now))
        if len(asked) == 1:
            raise RefusedError("no replica loads it", why="there is no room", fix="make some")
        return "loaded on both"

    with pytest.raises(RefusedError, match="no replica loads it"):
        back(hangar, RollbackOptions(have_loaded=load))
    assert str(hangar.registry.state("sums").aliases["production"]) == "1.2.0"
    options = RollbackOptions(have_loaded=load)
    done = roll_back(hangar, "sums", hangar.ring.signing_key("release"), options)
    assert done.moved and done.loaded and "loaded on both" in done.notes
    digest = hangar.registry.find(f"sums@{done.after}").digest
    assert asked == [(f"sums@{done.after}", digest, "1.2.0")] * 2


@pytest.mark.slow
def test_who_asks_for_it_sees_it_load_before_the_switch(tiny_llama: Path, tmp_path: Path) -> None:
    ring, registry = KeyRing(tmp_path / "keys"), Registry(tmp_path / "registry")
    ring.generate("release")
    cache = Location(str(tmp_path / "cache"))
    base = resolve_base_model(ModelSection(base_model=str(tiny_llama)), cache)
    training = {"base_model": str(tiny_llama), "base_digest": base.digest, "model": {"task": "causal_lm"}}
    trained = Trained(base_model=base.digest, base_reference=str(tiny_llama), layers=2)
    for version, told in (("1.0.0", training), ("1.1.0", {"base_model": "nowhere"}), ("1.2.0", training)):
        documents = {"adapter/training.json": {**told, "recipe": version}}
        release(registry, ring, tmp_path / version, trained, version, documents=documents)
        let_in(registry, ring, version)
    hangar = Hangar(registry, ring, cache)
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        back(hangar, RollbackOptions(load=True))
    assert str(registry.state("sums").aliases["production"]) == "1.2.0"
    options = RollbackOptions(load=True, to=Version(1, 0, 0))
    done = roll_back(hangar, "sums", ring.signing_key("release"), options)
    assert done.moved and done.loaded and "one token answered" in done.notes[-1] and "load" in done.seconds


@pytest.mark.slow
def test_killed_at_any_change_of_promotion_or_rollback_it_is_old_or_new(
    hangar: Hangar, tmp_path: Path
) -> None:
    registry, ring = hangar.registry, hangar.ring
    release(registry, ring, tmp_path / "last", Trained(dataset="sha256:last"), "1.3.0")
    whole = tmp_path / "whole"
    shutil.copytree(Path(registry.place), whole)
    steps: dict[str, tuple[Callable[[], object], str]] = {
        "promote": (lambda: let_in(registry, ring, "1.3.0"), "1.3.0"),
        "rollback": (lambda: back(hangar), "1.1.0"),
    }
    num_points = 0
    for name, (step, goal) in steps.items():
        point = 0
        while True:
            point += 1
            shutil.rmtree(Path(registry.place))
            shutil.copytree(whole, Path(registry.place))
            code = run_until(point, Path(registry.place), step)
            now = str(registry.state("sums").aliases["production"])
            if code == 0:
                assert now == goal
                break
            assert code == -signal.SIGKILL, f"{name}, point {point}: exit {code}"
            assert now in ("1.2.0", goal), f"{name}, point {point}"
            assert require_released(registry, "sums@production", ring).about.bundle
            assert (
                not any(faults for _, faults in registry.audit(ring))
                and Path(shelf_of(registry, "sums", "records").place).is_dir()
            )
            if now != goal:
                step()
            assert str(registry.state("sums").aliases["production"]) == goal, f"{name}, point {point}"
            require_released(registry, "sums@production", ring)
        num_points += point - 1
    assert num_points >= 30, f"only {num_points} points were found"
