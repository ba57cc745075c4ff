"""What an edge and a supernode are told, and by whom: flag > environment > file > default."""

from n2n.config.durations import format_duration, parse_duration
from n2n.config.load import DEFAULT, Loaded, Shown, load_edge, load_supernode, show
from n2n.config.model import (
    EdgeConfig,
    SupernodeConfig,
    default_edge_state_dir,
    default_run_dir,
    default_state_dir,
)

__all__ = [
    "DEFAULT",
    "EdgeConfig",
    "Loaded",
    "Shown",
    "SupernodeConfig",
    "default_edge_state_dir",
    "default_run_dir",
    "default_state_dir",
    "format_duration",
    "load_edge",
    "load_supernode",
    "parse_duration",
    "show",
]
