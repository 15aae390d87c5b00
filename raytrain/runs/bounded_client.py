"""Ray's client of the Jobs API, whose every request ends."""

from __future__ import annotations

import io
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raytrain.cluster.token import wrong_token

_CONNECT_S, _ANSWER_S = 5.0, 60.0


class BoundedJobClient(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
    """Raises WrongTokenError where Ray's own raises an error that is neither of the network nor of the run time."""

    def _do_request(
        self,
        method: str,
        endpoint: str,
        *,
        data: bytes | None = None,
        json_data: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        # While a body is sent the limit is the first of the two, and of bytes it is that of all of them together; what
        # is read from a stream is sent, and limited, piece by piece.
        timeout = (_CONNECT_S if data is None else _ANSWER_S, _ANSWER_S)
        body: Any = None if data is None else io.BytesIO(data)
        try:
            return super()._do_request(
                method, endpoint, data=body, json_data=json_data, **{"timeout": timeout, **kwargs}
            )
        except AuthenticationError as error:
            raise wrong_token(self.get_address(), is_missing="required" in str(error)) from error
