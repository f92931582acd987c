# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx on the documentation site; script/lib/docs.py puts this file beside the pages."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

project = "acrn.ivshmem"
author = copyright = "acrn.ivshmem contributors"
html_title = "acrn.ivshmem"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True
default_role = "any"

# Links to headings are those that GitHub makes of them.
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path: list[str] = []
html_copy_source = False
html_show_sphinx = False
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
highlight_language = "text"
pygments_style = "ansible"
pygments_dark_style = "monokai"
antsibull_ext_color_scheme = "default-autodark"

ANSIBLE = "https://docs.ansible.com/ansible/latest"
# Labels of Ansible's own documentation that antsibull-docs refers to.
LABELS = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def elsewhere(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A link into Ansible's own documentation, without asking it whether the page is there."""
    label = node.get("reftarget", "")
    plugin = re.fullmatch(r"ansible_collections\.ansible\.builtin\.(\w+_[a-z]+)", label)
    if plugin:
        page = f"collections/ansible/builtin/{plugin[1]}.html"
    elif node.get("reftype") == "envvar" and label.startswith("ANSIBLE_"):
        page = f"reference_appendices/config.html#envvar-{label}"
    elif label in LABELS:
        page = LABELS[label]
    else:
        return None
    return nodes.reference("", "", content, refuri=f"{ANSIBLE}/{page}", internal=False)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", elsewhere)
