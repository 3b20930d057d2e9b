"""Where artefacts are stored: the only package that opens, writes and deletes their files.

Object stores and memory are handled by TensorStore, whose conditional writes give `create` exactly one winner,
see `keys`. Local files are written by our own code; `files` says why.
"""

from jaxprobe.place.files import ObstacleError as ObstacleError
from jaxprobe.place.keys import context as context
from jaxprobe.place.parts import Data as Data
from jaxprobe.place.place import Place as Place
