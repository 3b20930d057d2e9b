"""Where artefacts lie: the one room that opens, writes and deletes their files.

On object stores and in memory the work is TensorStore's, whose conditional writes make `create` have one winner,
see `keys`. Local files are written by our own code, see `files`, which says why.
"""

from jaxprobe.place.files import ObstacleError as ObstacleError
from jaxprobe.place.keys import context as context
from jaxprobe.place.parts import Data as Data
from jaxprobe.place.place import Place as Place
