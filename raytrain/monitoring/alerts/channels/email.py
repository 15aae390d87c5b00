"""Alerts by mail, through a server that takes it by SMTP."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, localtime

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.asking import ANSWER_S, WHOLE_S, in_time, told_of_tls
from raytrain.monitoring.alerts.channels.channel import Failure, told_in_lines
from raytrain.monitoring.alerts.secret_values import read_secret
from raytrain.monitoring.alerts.section import EmailSection


class EmailChannel:
    """See `Channel`."""

    def __init__(self, section: EmailSection) -> None:
        self._section = section
        self.name = section.name

    def secrets(self) -> list[str]:
        password = self._password()
        return [] if password is None else [password]

    def send(self, alert: Alert, num_repeats: int) -> Failure | None:
        message, password = message_of(self._section, alert, num_repeats), self._password()
        late: Failure | None = Failure(f"{self._section.host} was not done in {WHOLE_S:.0f} s")
        return in_time(lambda: _handed_over(self._section, message, password), late)

    def _password(self) -> str | None:
        section = self._section
        return read_secret(f"the password of {self.name}", section.password_env, section.password_file)


def message_of(section: EmailSection, alert: Alert, num_repeats: int) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = f"[raytrain {alert.severity}] {' '.join(alert.title.split())}"
    message["From"] = section.sender
    message["To"] = ", ".join(section.to)
    message["Date"] = format_datetime(localtime())
    # The same in every try: readers show a message that comes twice once.
    message["Message-ID"] = f"<{alert.id}@{section.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Raytrain-Kind"] = alert.kind
    message.set_content("\n".join(told_in_lines(alert, num_repeats)) + "\n")
    return message


def _handed_over(section: EmailSection, message: EmailMessage, password: str | None) -> Failure | None:
    server: smtplib.SMTP | None = None
    try:
        server = _connected(section)
        if password is not None and section.user is not None:
            server.login(section.user, password)
        refused = server.send_message(message, section.sender, section.to)
    except smtplib.SMTPException as error:
        return _told(section, error)
    except ssl.SSLError as error:
        return Failure(f"no safe connection to {section.host}: {told_of_tls(error)}")
    except TimeoutError:
        return Failure(f"{section.host} did not answer in time")
    except OSError as error:
        return Failure(f"{section.host}:{section.port} cannot be reached: {error.strerror or error}")
    except (UnicodeError, ValueError):
        return Failure(f"what stands at {section.host}:{section.port} does not speak SMTP")
    finally:
        if server is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException, ValueError):
                server.quit()  # the mail is taken, or not, before this
            server.close()
    if refused:
        # The others have it: once more to all would be twice to them.
        return Failure(f"delivered, but not to {', '.join(refused)}", partly=True)
    return None


def _connected(section: EmailSection) -> smtplib.SMTP:
    ca_file = None if section.ca_file is None else str(section.ca_file.expanduser())
    context = ssl.create_default_context(cafile=ca_file)
    name = socket.gethostname()
    if section.security == "tls":
        return smtplib.SMTP_SSL(section.host, section.port, name, timeout=ANSWER_S, context=context)
    server = smtplib.SMTP(section.host, section.port, name, timeout=ANSWER_S)
    if section.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _told(section: EmailSection, error: smtplib.SMTPException) -> Failure:
    """What the server says to a login is not repeated: it may be what it was told."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Failure(f"{section.host} does not take the login ({error.smtp_code})", lasts=True)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Failure(
            f"{section.host} does not offer what was asked ({error}); nothing was sent in clear", lasts=True
        )
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {address: code for address, (code, _) in error.recipients.items()}
        told = ", ".join(f"{address} ({code})" for address, code in codes.items())
        return Failure(
            f"{section.host} takes mail for none of them: {told}", lasts=min(codes.values()) >= 500
        )
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        why = f"{section.host} answered {error.smtp_code}: {' '.join(text.split())[:200]}"
        return Failure(why, lasts=error.smtp_code >= 500)
    if isinstance(error.__context__, TimeoutError):
        return Failure(f"{section.host} did not answer in time")
    return Failure(f"{section.host} ended the conversation ({type(error).__name__})")
