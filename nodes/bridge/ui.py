"""Words for the person at the graph: under the node while it runs, in the history afterwards."""

from __future__ import annotations

from comfy_api.latest import io, ui
from server import PromptServer


def said(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Show `text` on the node and return it as the node's UI output, which `/history` keeps."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node.hidden.unique_id is not None:
        server.send_progress_text(text, node.hidden.unique_id)
    return ui.PreviewText(text)
