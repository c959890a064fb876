"""`[deliveries.NAME]` of `fleet.toml`: one receiver of outcomes."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.config.sections import ConfigTable, is_url, number, one_or_more
from fleet.formats.public_address import is_public, literal
from fleet.formats.webhook_signature import check_secret

#: The receiver that needs no table: the gateway, of the events that came from it.
UPSTREAM = "upstream"

WindowSeconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=60)]
Outcome = Literal["completed", "dead", "cancelled", "dropped", "expired"]
DeadlineSeconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=86400)]


class DeliveryConfig(ConfigTable):
    """A receiver of outcomes: an address they are posted to, or another agent."""

    #: Signed with `secret`, after Standard Webhooks. May hold a token, so it is shown nowhere.
    webhook: SecretStr | None = None
    secret: SecretStr | None = None
    #: This agent gets each outcome as an event, and confirms it by having its turn.
    agent: str | None = None
    #: The outcomes it is told of; none: all.
    on: Annotated[tuple[Outcome, ...], BeforeValidator(one_or_more)] = ()
    #: A receiver has so long to confirm what it was sent.
    window_s: WindowSeconds = 5.0
    #: What was not taken is sent again until this long after the end.
    deadline_s: DeadlineSeconds = 3600.0
    #: Allow an address that is not on the internet.
    allow_private: bool = False

    @field_validator("webhook")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value()
        try:
            fits = is_url(text) and urlsplit(text).port != 0
        except ValueError:
            fits = False
        # As http.client takes it: a blank or a control character would be a second header.
        if not fits or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be a URL that begins with https:// or http://")
        if "@" in urlsplit(text).netloc:
            raise ValueError("must hold no user and password; what is posted is signed")
        return value

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.webhook is None) == (self.agent is None):
            raise ValueError("needs a `webhook` or an `agent`, one of them")
        if self.webhook is not None and self.secret is None:
            raise ValueError("has no `secret`, with which what is posted is signed")
        if self.agent is not None and self.secret is not None:
            raise ValueError("has a `secret`, but an agent is posted nothing: take it out")
        return self

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        """What is written out is refused at the start; a name, when it is looked up."""
        if self.webhook is None:
            return self
        host = urlsplit(self.webhook.get_secret_value()).hostname or ""
        address = literal(host)
        private = host == "localhost" or (address is not None and not is_public(address))
        if private and not self.allow_private:
            raise ValueError("webhook is not a public address; set `allow_private = true` for it")
        return self
