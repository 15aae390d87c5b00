"""What is said where a cluster refuses the token of whoever asks it for something."""

from __future__ import annotations

from raytrain.errors import ClusterError


class WrongTokenError(ClusterError):
    """The cluster is there and says no; of what runs on it this says nothing."""


def wrong_token(place: str, *, is_missing: bool) -> WrongTokenError:
    """`place` is the cluster's address or URL; `is_missing`: none was sent."""
    return WrongTokenError(
        f"the cluster at {place} wants a token, and none was sent"
        if is_missing
        else f"the cluster at {place} refuses the token",
        why="RAY_AUTH_MODE is not token here, or neither RAY_AUTH_TOKEN nor ~/.ray/auth_token is set"
        if is_missing
        else "RAY_AUTH_TOKEN, or ~/.ray/auth_token, is not the token that it was started with",
        fix="copy the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token",
    )
