from collections.abc import Sequence

from ..errors import ParseError as ParseError
from ..records import Address as Address
from ..records import NodeRecord as NodeRecord
from ..records import NodesConf as NodesConf

__all__ = [
    "Address",
    "NodeRecord",
    "NodesConf",
    "ParseError",
    "appended_vars",
    "crc64",
    "dump",
    "format_address",
    "format_node_line",
    "log_line",
    "log_lines",
    "parse",
    "parse_address",
    "parse_node_line",
]

def appended_vars(current_term: int, voted_for: str | None, crc: int) -> bytes: ...
def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int: ...
def dump(conf: NodesConf) -> bytes: ...
def format_address(address: Address, *, always_comma: bool = True) -> str: ...
def format_node_line(node: NodeRecord) -> bytes: ...
def log_line(index: int, line: bytes) -> bytes: ...
def log_lines(first_index: int, lines: Sequence[bytes]) -> bytes: ...
def parse(data: bytes) -> NodesConf: ...
def parse_address(text: str | bytes) -> Address: ...
def parse_node_line(line: bytes) -> NodeRecord: ...
