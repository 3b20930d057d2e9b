"""Processes that import one room of jaxprobe: the whole of it takes seconds."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# In front of a program: its `jaxprobe` is the folder alone, without the public names of `__init__.py`.
PACKAGE = f"""
import sys, types
package = types.ModuleType("jaxprobe")
package.__path__ = [{str(ROOT / "jaxprobe")!r}]
sys.modules["jaxprobe"] = package
"""
