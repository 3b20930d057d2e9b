"""Language models through penzai: loading, and the compiled pass that reads their activations."""

from jaxprobe.models.forward import Forward as Forward
from jaxprobe.models.forward import make_forward as make_forward
from jaxprobe.models.model import Model as Model
from jaxprobe.models.model import ModelIdentity as ModelIdentity
from jaxprobe.models.model import identify as identify
from jaxprobe.models.model import load_model as load_model
from jaxprobe.models.sharding import device_mesh as device_mesh
