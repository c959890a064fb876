"""The address of a server behind Sentinel: `sentinel://HOST:PORT;sentinel://HOST:PORT/0?master_name=NAME`.

User and password before the first host are those of the server; the sentinels are asked without.
"""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from fleet.errors import ConfigError

SCHEME = "sentinel://"
_PORT = 26379


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """The sentinels, and the server that they know."""

    places: tuple[tuple[str, int], ...]
    master_name: str
    db: int
    #: As in a URL: empty, or `user:password@`.
    login: str

    @classmethod
    def read(cls, url: str, key: str = "fleet.broker_url") -> "SentinelAddress":
        """The address in a URL; raises ConfigError that begins with `key`."""
        parts = [urlsplit(one) for one in url.split(";")]
        places = tuple((part.hostname or "", part.port or _PORT) for part in parts)
        if not all(host for host, _ in places) or any(p.scheme != "sentinel" for p in parts):
            raise ConfigError(
                f"{key}: each address between semicolons must be sentinel://HOST:PORT."
            )
        names = parse_qs(parts[-1].query).get("master_name", [])
        db = parts[-1].path.strip("/") or "0"
        if len(names) != 1 or not db.isdecimal():
            raise ConfigError(
                f"{key}: must end with /DATABASE?master_name=NAME, the name that the sentinels "
                "give the server."
            )
        login, mark, _ = parts[0].netloc.rpartition("@")
        return cls(places=places, master_name=names[0], db=int(db), login=login + mark)

    @property
    def kombu_url(self) -> str:
        """The same as kombu and Celery read it, which take the name as an option."""
        return ";".join(
            f"{SCHEME}{self.login}{host}:{port}/{self.db}" for host, port in self.places
        )

    @property
    def credentials(self) -> dict[str, str]:
        """Those of the server, as redis-py names them."""
        user, _, password = self.login.removesuffix("@").partition(":")
        found = {"username": unquote(user), "password": unquote(password)}
        return {name: value for name, value in found.items() if value}
