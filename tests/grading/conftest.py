"""The tasks of the smallest lab are a module beside its notebook; make it importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tiny_course" / "instructor" / "tiny"))
