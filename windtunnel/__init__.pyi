from windtunnel.api import chip as chip
from windtunnel.api import load as load
from windtunnel.api import predict as predict
from windtunnel.api import record as record
from windtunnel.api import save as save
from windtunnel.capture.custom import assume as assume
from windtunnel.capture.custom import register_op as register_op
from windtunnel.errors import AnswerIsNo as AnswerIsNo
from windtunnel.errors import WindtunnelError as WindtunnelError

__version__: str
