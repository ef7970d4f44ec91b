from typing import Final, NoReturn, final

from raftfast.errors import ProtocolError as ProtocolError
from raftfast.messages import AddMe as AddMe
from raftfast.messages import AppendEntries as AppendEntries
from raftfast.messages import AppendEntriesAck as AppendEntriesAck
from raftfast.messages import FailoverPrepare as FailoverPrepare
from raftfast.messages import Hello as Hello
from raftfast.messages import Hi as Hi
from raftfast.messages import InstallSnapshot as InstallSnapshot
from raftfast.messages import Meet as Meet
from raftfast.messages import MeetRejected as MeetRejected
from raftfast.messages import Message as Message
from raftfast.messages import Module as Module
from raftfast.messages import PreVote as PreVote
from raftfast.messages import PreVoteRequest as PreVoteRequest
from raftfast.messages import Propose as Propose
from raftfast.messages import Publish as Publish
from raftfast.messages import ReadIndex as ReadIndex
from raftfast.messages import ReadIndexNo as ReadIndexNo
from raftfast.messages import ReadIndexOk as ReadIndexOk
from raftfast.messages import Reject as Reject
from raftfast.messages import Removed as Removed
from raftfast.messages import ReplOffsets as ReplOffsets
from raftfast.messages import SnapshotAck as SnapshotAck
from raftfast.messages import SnapshotPiece as SnapshotPiece
from raftfast.messages import TimeoutNow as TimeoutNow
from raftfast.messages import TransferLeader as TransferLeader
from raftfast.messages import Unknown as Unknown
from raftfast.messages import Vote as Vote
from raftfast.messages import VoteRequest as VoteRequest
from raftfast.messages import Welcome as Welcome

MAX_FRAME: Final[int]

def decode(payload: bytes | bytearray | memoryview) -> Message: ...
def encode(message: Message) -> bytes: ...

@final
class FrameDecoder:
    def __init__(self, max_frame: int = ...) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    @property
    def buffered(self) -> int: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]: ...
