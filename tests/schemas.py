"""Check JSON documents against docs/schemas; what no schema describes is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
COMMON = "common"
SENT = ("after-activation", "notification", "selftest-report")
"""What no command prints."""


def name(command: str) -> str:
    """Return the name of a command's schema."""
    return command.replace(" ", "-")


def check(document: Mapping[str, Any]) -> None:
    """Check what a command printed.

    Raises:
        ValidationError: If it is not as the command's schema says.
    """
    command = document["command"]
    # Wrong usage of a group, or of what is no command.
    is_known = (FOLDER / f"{name(command)}.json").exists()
    if not is_known:
        assert document["error"]["type"] == "UsageError", command
    _validator(name(command) if is_known else COMMON).validate(document)


def check_as(schema: str, document: Mapping[str, Any]) -> None:
    """Check what is sent or written to a file, and printed by no command."""
    _validator(schema).validate(document)


@cache
def _validator(wanted: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{wanted}.json"}, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    resources = []
    for file in FOLDER.glob("*.json"):
        schema = _closed(json.loads(file.read_text("utf-8")))
        if file.stem != COMMON:
            schema["unevaluatedProperties"] = False
        else:
            # The commands add to it.
            del schema["unevaluatedProperties"]
        resources.append((file.name, DRAFT202012.create_resource(schema)))
    return Registry[Any]().with_resources(resources)


def _closed(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema whose objects have no other properties than it describes.

    The schemas themselves are open: a new key breaks nobody.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        made["unevaluatedProperties"] = False
    return made
