from typing import Final, final

BATCH: Final[int]
LARGEST: Final[int]

@final
class Packets:
    def __init__(self, header: str, size: int, key: bytes | None = None, batch: int = 64, cipher: str = "auto") -> None: ...
    @property
    def backend(self) -> str: ...
    def run(self, batches: int) -> tuple[list[int], int]: ...

@final
class Exchange:
    def __init__(
        self,
        near: int,
        far: int,
        size: int,
        *,
        head: bytes = b"",
        near_offset: int = 0,
        far_offset: int = 0,
        near_socket: bool = True,
        far_socket: bool = True,
        batch: int = 1,
    ) -> None: ...
    def run(self, batches: int, timeout_ms: int = 1000) -> tuple[list[int], int, int]: ...
