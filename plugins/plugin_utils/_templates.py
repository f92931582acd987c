# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jinja2 templates of the collection, and those of users in their place.

They run in a sandbox on the controller, and see what they are given and nothing of Ansible.

This plugin util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

COLLECTION = Path(__file__).resolve().parents[2]


def renderer(
    variable: str,
    shipped: str,
    own: str = "",
    autoescape: bool = False,
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[[Mapping[str, Any]], str]:
    """A function from values to a text: by the template ``shipped`` (a path in the collection) or the user's ``own``.

    The user's may extend or import the shipped one by its name. ``variable`` is what the user named it with. What it
    returns raises IvshmemError with variable, file and line.
    """
    default = COLLECTION / shipped
    path = Path(own) if own else default
    places = [path.parent, default.parent]
    if path.name == default.name:
        # It would extend itself.
        places.reverse()
    environment = ImmutableSandboxedEnvironment(
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=ChoiceLoader([FileSystemLoader(place) for place in places]),
    )
    environment.filters.update(filters or {})
    made: list[Any] = []

    def render(values: Mapping[str, Any]) -> str:
        try:
            if not made:
                made.append(environment.from_string(path.read_text(encoding="utf-8")))
            return str(made[0].render(values))
        except TemplateNotFound as exc:
            raise IvshmemError(f"{variable}: {path}: there is no template {exc.name}") from exc
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise IvshmemError(f"{variable}: {path}: {why}") from exc
        except TemplateSyntaxError as exc:
            raise IvshmemError(f"{variable}: {exc.name or path}:{exc.lineno}: {exc.message}") from exc
        except Exception as exc:  # a template is code of its user, and what it does may fail in any way
            raise IvshmemError(f"{variable}: {path}: {type(exc).__name__}: {exc}") from exc

    return render
