"""`[deliveries.NAME]` of `fleet.toml`: one receiver of outcomes."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.config.fields import ConfigTable, is_url, number, one_or_more
from fleet.formats.public_address import is_public, literal
from fleet.formats.webhook_signature import check_secret

#: The receiver that needs no table: the gateway, of the events that came from it.
UPSTREAM = "upstream"

WindowSeconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=60)]
Outcome = Literal["completed", "dead", "cancelled", "dropped", "expired"]
DeadlineSeconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=86400)]


class DeliveryConfig(ConfigTable):
    """A receiver of outcomes: an address they are posted to, or another agent."""

    #: May hold a token, so it is shown nowhere.
    webhook: SecretStr | None = Field(
        default=None, description="Where outcomes are posted; needed unless there is an `agent`."
    )
    secret: SecretStr | None = Field(
        default=None, description="Signs what is posted to `webhook`, after Standard Webhooks."
    )
    #: It confirms an outcome by having its turn.
    agent: str | None = Field(
        default=None, description="The agent that gets each outcome as an event."
    )
    on: Annotated[tuple[Outcome, ...], BeforeValidator(one_or_more)] = Field(
        default=(), description="The outcomes to deliver; without it, all."
    )
    window_s: WindowSeconds = Field(
        default=5.0, description="How long a receiver has to confirm an outcome."
    )
    deadline_s: DeadlineSeconds = Field(
        default=3600.0,
        description="A refused outcome is sent again until this long after the dispatch ended.",
    )
    allow_private: bool = Field(
        default=False, description="Allow an address that is not on the internet."
    )

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
        """Refuse a private address at the start; a name is checked when it is looked up."""
        if self.webhook is None:
            return self
        host = urlsplit(self.webhook.get_secret_value()).hostname or ""
        address = literal(host)
        private = host == "localhost" or (address is not None and not is_public(address))
        if private and not self.allow_private:
            raise ValueError("webhook is not a public address; set `allow_private = true` for it")
        return self
