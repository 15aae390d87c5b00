"""What Ray Serve's config files name: `serve.app:build_application`."""
