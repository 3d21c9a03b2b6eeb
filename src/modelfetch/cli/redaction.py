"""Redaction: secrets and invisible characters kept out of logs, messages and the termination message."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

# Text that looks like a secret: in a query, in a header, in JSON or its repr, in XML, in an address, in a key file. Any
# query of an http address may hold one: a redirect names its parameters as it likes. A backslash ends no secret.
_SECRETS = re.compile(
    r"""(?ix)
    ((?:X-(?:Amz|Goog)-[a-z-]+|AWSAccessKeyId|Signature|sig|token|client_secret|assertion|password|upload_id)=)
    (?:[^&\s'"\\] | \\(?!['"]))+
    | ((?:Bearer|Basic)\s+) (?:[^\s'"\\] | \\(?!['"]))+
    | ((?:token|secret(?:_?access)?(?:_?key)?|private_?key|password|assertion)[\\'"]+\s*:\s*(?P<quote>\\*['"]))
      (?: (?!(?P=quote)) (?:\\. | [^\\]) )+
    | ( (?: https?:/ | (?<![:/\w]) ) /[^\s?'"<>\\]* \? ) (?:[^\s'"<>)\\] | \\(?!['"]))+
    | (<(?:SecretAccessKey|SessionToken|WebIdentityToken)>) [^<]+
    | (://) (?:[^\s/?\#'"\\@] | \\(?!['"]))+ (?=@)
    | (-----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----) [\s\S]*? (?:-----END\ [A-Z\ ]*-----|\Z)
    """
)
_MIN_LENGTH = 6  # characters of a known secret: a shorter text occurs by chance
# Characters that JSON need not escape, but a terminal obeys, hides or reorders: Unicode TR36, 2.6 and 2.8.
_INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_USER_INFO = re.compile(r"//[^/]*@")
_PROXY_USER = re.compile(r"^(\w+://)?.*@")  # a proxy address may lack a scheme
_QUERY = re.compile(r"^(https?://[^?]*)\?.*", re.IGNORECASE)  # of a signed URL


class Redactor:
    """Known secrets of one command, and their removal from text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Register the secrets known at the start."""
        self._hidden: set[str] = set()
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Register secrets, in every form in which a library may quote a secret."""
        for secret in secrets:
            for text in {secret, *secret.split(), repr(secret)[1:-1]}:
                forms = {text, quote(text), quote_plus(text)}
                self._hidden.update(json.dumps(f, ensure_ascii=False)[1:-1] for f in forms if len(f) >= _MIN_LENGTH)
                self._hidden.update(form for form in forms if len(form) >= _MIN_LENGTH)

    def redact(self, text: str) -> str:
        """Return the text without registered secrets and without lookalikes of secrets."""
        for secret in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(secret, "***")
        return _SECRETS.sub(lambda match: f"{next(filter(None, match.groups()))}***", text)

    def dump_json(self, fields: dict[str, object]) -> str:
        """Return one line of JSON without secrets and without invisible characters."""
        return escape_invisible(self.redact(json.dumps(fields, ensure_ascii=False, default=str)))


def escape_invisible(text: str) -> str:
    """Return the text with JSON escapes for characters a terminal hides, reorders or obeys; line ends stay."""
    return _INVISIBLE.sub(lambda match: json.dumps(match[0])[1:-1], text)


def mask_credentials(value: str, *, proxy: bool = False) -> str:
    """Return a setting's value without user name, password and the query of a URL."""
    value = _PROXY_USER.sub(r"\1***@", value) if proxy else _USER_INFO.sub("//***@", value)
    return _QUERY.sub(r"\1?***", value)
