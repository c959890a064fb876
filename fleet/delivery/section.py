"""`[deliveries.NAME]` of `fleet.toml`: one receiver of outcomes."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.delivery.address import is_public, literal
from fleet.sections import Section, is_url, number
from fleet.signature import check_secret


class Delivery(Section):
    """A receiver that outcomes are posted to, signed after Standard Webhooks."""

    #: May hold a token, so it is shown nowhere.
    webhook: SecretStr
    secret: SecretStr
    #: A receiver has so long to confirm what it was sent.
    window_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=60)] = 5.0
    #: What was not taken is sent again until this long after the turn.
    deadline_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=86400)] = 3600.0
    #: Allow an address that is not on the internet.
    allow_private: bool = False

    @field_validator("webhook")
    @classmethod
    def _is_address(cls, value: SecretStr) -> SecretStr:
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
    def _is_secret(cls, value: SecretStr) -> SecretStr:
        check_secret(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        """What is written out is refused at the start; a name, when it is looked up."""
        host = urlsplit(self.webhook.get_secret_value()).hostname or ""
        address = literal(host)
        private = host == "localhost" or (address is not None and not is_public(address))
        if private and not self.allow_private:
            raise ValueError("webhook is not a public address; set `allow_private = true` for it")
        return self
