"""libexpert for Conan 2, built from the checkout this file stands in. Nothing is fetched: the libraries underneath come
from the system (apt-get install libfmt-dev nlohmann-json3-dev libsodium-dev libssl-dev libarchive-dev pkg-config).

    conan create packaging/conan            builds, packs, and runs test_package/
    conan create packaging/conan -o shared=False
"""

import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SOURCES = ["CMakeLists.txt", "LICENSE", "THIRD_PARTY_NOTICES.md", "cmake/*", "capi/*", "cli/*", "include/*", "kernels/*",
           "models/*", "src/*"]  # fmt: skip


class Libexpert(ConanFile):
    name = "libexpert"
    description = "One small base language model stays resident, many experts bend it per request"
    license = "Apache-2.0"
    topics = ("llm", "lora", "inference")
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False], "cli": [True, False]}
    default_options = {"shared": True, "cli": False}
    package_type = "library"

    def set_version(self):
        header = load(self, os.path.join(ROOT, "include", "expert", "version.h"))
        self.version = re.search(r'EXPERT_VERSION_STRING "([^"]+)"', header).group(1)

    def export_sources(self):
        for pattern in SOURCES:
            copy(self, pattern, ROOT, self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["BUILD_SHARED_LIBS"] = bool(self.options.shared)
        toolchain.cache_variables["EXPERT_CLI"] = bool(self.options.cli)
        toolchain.cache_variables["CMAKE_UNITY_BUILD"] = True
        toolchain.cache_variables["CMAKE_UNITY_BUILD_BATCH_SIZE"] = "50"
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The package's own expert-config.cmake is used, not one that Conan would make up.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "expert")]
        self.cpp_info.libs = ["expert"]
        self.runenv_info.define_path("EXPERT_MODELS_PATH", os.path.join(self.package_folder, "share", "expert", "models"))
