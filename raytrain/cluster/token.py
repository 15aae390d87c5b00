"""Whether a cluster takes the token of whoever asks it for something, and what is said where it does not."""

from __future__ import annotations

import os

from raytrain.errors import ClusterError

_ANSWER_S = 3.0


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


def sends_token() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def check_token(address: str) -> None:
    """Raise WrongTokenError where the head at host:port refuses this process's token; Ray by itself would ask with it
    for 20 s. Whatever else is wrong there is left to whoever joins."""
    import grpc  # type: ignore[import-untyped]  # it brings no types
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(address) as channel:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=_ANSWER_S)
    except AuthenticationError as error:  # Ray finds none to send
        raise wrong_token(address, is_missing=True) from error
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise wrong_token(address, is_missing=not sends_token()) from error
