# Of a tarball of the repository in the current directory, made by
#   git archive --prefix=deeper-0.2.0/ --output=deeper-0.2.0.tar.gz v0.2.0
# Copy this file to packages/deeper/package.py of a repository of Spack, then: spack install --no-checksum deeper
import os

from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class Deeper(CMakePackage):
    """Trains GoogLeNet and its ancestor NIN data-parallel over MPI, from a laptop to a cluster."""

    homepage = "https://example.org/deeper"
    url = f"file://{os.getcwd()}/deeper-0.2.0.tar.gz"
    manual_download = True

    license("Apache-2.0")

    version("0.2.0")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("nlohmann-json", type="build")
    depends_on("python@3.9:", type="run")
    depends_on("abseil-cpp@20220623: +shared cxxstd=17")
    depends_on("hdf5@1.10:")
    depends_on("isa-l")
    depends_on("jpeg")
    depends_on("libpng")
    depends_on("libwebp")
    depends_on("mpi")
    depends_on("onednn@2.6: cpu_runtime=omp")
    depends_on("xxhash")
    depends_on("zlib-api")

    conflicts("%gcc@:10", msg="deeper is written in C++20")

    resource(
        name="dygraphs",
        url="https://snapshot.debian.org/archive/debian/20250101T000000Z/pool/main/d/dygraphs/libjs-dygraphs_2.2.1-1_all.deb",
        sha256="64ba6b442cac22374f01412bc6b0b6116dcf32bc251ed6c1dc7c5134c9ec2a00",
        expand=False,
        placement="dygraphs",
    )

    build_targets = ["deeper"]

    def patch(self):
        with working_dir("dygraphs"):
            which("ar", required=True)("x", "libjs-dygraphs_2.2.1-1_all.deb", "data.tar.xz")
            which("tar", required=True)("-xf", "data.tar.xz")

    def cmake_args(self):
        share = join_path(self.stage.source_path, "dygraphs", "usr", "share")
        return [
            self.define("DEEPER_TESTS", False),
            self.define("DEEPER_CCACHE", False),
            self.define("DYGRAPHS_JS", join_path(share, "javascript", "dygraphs", "dygraph.min.js")),
            self.define("DYGRAPHS_CSS", join_path(share, "javascript", "dygraphs", "dygraph.min.css")),
            self.define("DYGRAPHS_LICENCE", join_path(share, "doc", "libjs-dygraphs", "copyright")),
        ]

    def install(self, spec, prefix):
        """`make install` makes the archive, which brings its own libraries."""
        program = Executable(join_path(self.stage.source_path, "launch", "deploy", "install-program"))
        program(self.build_directory, prefix.bin)
