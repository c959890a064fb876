"""The smaller sections of `fleet.toml`, one frozen model each; unknown keys are errors."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.config.fields import ConfigTable, Count, Port, Seconds, is_url, number


class RetentionConfig(ConfigTable):
    """How long ended dispatches are kept: until the first of these bounds is met."""

    completed_s: Seconds = Field(
        default=7 * 86400, description="How long an ended dispatch is kept."
    )
    dead_s: Seconds = Field(default=30 * 86400, description="How long a dead letter is kept.")
    max: Count = Field(
        default=10_000, description="Most ended dispatches, and most dead letters, that are kept."
    )


class CapsConfig(ConfigTable):
    """The limits of intake; beyond them an event is refused, and its sender keeps it."""

    max_waiting: Count = Field(
        default=100_000, description="Most dispatches that wait in the whole fleet."
    )
    sender_per_minute: Count | None = Field(
        default=None,
        description="Most events of one sender (a token, or all that need none) in a minute; "
        "without it, no limit.",
    )
    #: Room is needed to end what was accepted before.
    store_memory: Annotated[float, BeforeValidator(number), Field(gt=0, le=1)] = Field(
        default=0.9,
        description="Part of the store's `maxmemory` above which no event is accepted.",
    )


class BusConfig(ConfigTable):
    """How much of the bus is kept, and what a slow client may cost."""

    max_length: Count = Field(default=10_000, description="About how many entries the bus keeps.")
    max_age_s: Seconds = Field(default=3600.0, description="How long the bus keeps an entry.")
    client_queue: Count = Field(
        default=256, description="Entries that may wait for a slow client of the API."
    )
    evict_after_failures: Count = Field(
        default=3, description="Failed sends in a row after which a client is cut off."
    )
    send_timeout_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=60)] = Field(
        default=5.0, description="The limit of one send to a client."
    )


class BreakerConfig(ConfigTable):
    """The circuit breaker before the broker."""

    failure_threshold: Count = Field(
        default=5,
        description="Failures of the broker within 60 s that open the breaker; one refused "
        "password does, too.",
    )
    reset_timeout_s: Seconds = Field(
        default=30.0,
        description="Wait before an open breaker tries the broker again; it doubles up to 300 s.",
    )


class LocksConfig(ConfigTable):
    """The locks in front of tool servers that are passed on over `/mcp`; see `fleet.locks`."""

    session_ttl_s: Seconds = Field(
        default=60.0, description="Most time for which a crashed API process holds a session."
    )
    acquire_timeout_s: Seconds = Field(
        default=5.0, description="How long a tool call waits for its session, and for its turn."
    )
    on_store_down: Literal["closed", "open"] = Field(
        default="closed",
        description="Without a store a tool call is refused, or made without locks.",
    )


class SessionsConfig(ConfigTable):
    """The history of a session, and how events become one turn under `on_busy = "coalesce"`."""

    history_messages: Annotated[int, BeforeValidator(number), Field(ge=0, le=1000)] = Field(
        default=40, description="Most earlier messages that a turn gets; 0 keeps no history."
    )
    history_tokens: Annotated[int, BeforeValidator(number), Field(ge=1, le=1_000_000)] = Field(
        default=16_000, description="Most tokens of history that a turn gets."
    )
    history_ttl_s: Seconds = Field(
        default=7 * 86400.0, description="How long a history outlives its session's last turn."
    )
    coalesce_window_s: Seconds = Field(
        default=1.0, description="How long it must be quiet before coalesced events start."
    )
    coalesce_max_s: Seconds = Field(
        default=10.0, description="Most time that coalesced events wait for quiet."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.coalesce_max_s < self.coalesce_window_s:
            raise ValueError("coalesce_max_s must be at least coalesce_window_s")
        return self


class AlertsConfig(ConfigTable):
    """The receiver of alerts besides the bus."""

    webhook: SecretStr | None = Field(
        default=None,
        description="URL of Discord, of Slack, or of anything that takes JSON; its shape decides.",
    )

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not is_url(value.get_secret_value()):
            raise ValueError("must be a URL that begins with https:// or http://")
        return value


class FlowerConfig(ConfigTable):
    """Flower, always on loopback and read-only."""

    enabled: bool = Field(default=True, description="Run Flower beside the fleet.")
    port: Port = Field(default=5555, description="Flower's port on loopback; 0 takes a free one.")
