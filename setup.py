"""What setup.cfg cannot say: in the wheel the console's files lie packed beside the plain ones, and the manual lies as HTML."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))  # the build backend runs this file without its folder on the path
from ds2d.web.assets import pack
from ds2d.web.manual import pages


class Build(build_py):
    """The usual build, the packing, and the manual; neither where the package is installed as a link."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        if pages.INDEX not in pages.names():
            raise SystemExit("docs/ is missing: the manual cannot be built")
        web = Path(self.build_lib, "ds2d", "web")
        pack(web / "console")
        pages.write(web / "manual" / "html")


setup(cmdclass={"build_py": Build})
