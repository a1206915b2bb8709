"""What a studio is made of: models, tools, a dataset, reports. Opened once, shared by all who look at the page."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synthchex.studio.browse import Browser
from synthchex.studio.generate import Maker
from synthchex.textmask import Tools


@dataclass
class Studio:
    """All parts. `running` holds, by session, what stops the films that are being made."""

    maker: Maker
    tools: Tools
    browser: Browser | None = None
    reports: Mapping[str, Path] = field(default_factory=dict)
    feature_store: Path | None = None
    running: dict[str, threading.Event] = field(default_factory=dict)

    def begin(self, session: str) -> threading.Event:
        """What will stop the films of a session; those that it is making already are stopped."""
        self.stop(session)
        self.running[session] = threading.Event()
        return self.running[session]

    def stop(self, session: str) -> bool:
        """Stop what a session is making; whether there was anything."""
        event = self.running.pop(session, None)
        if event is not None:
            event.set()
        return event is not None
