# PkgConfig::HDF5. HDF5 that was built with its configure script has no pkg-config file.
pkg_check_modules(HDF5 IMPORTED_TARGET hdf5)
if(NOT HDF5_FOUND)
  find_package(HDF5 REQUIRED COMPONENTS C)
  add_library(PkgConfig::HDF5 ALIAS hdf5::hdf5)
  return()
endif()

# Debian's shared HDF5 loads libcurl, OpenSSL, Kerberos and LDAP for reading from S3, which deeper does not do. The static HDF5 of Debian 12
# links without them. That of Debian 13 does not, so deeper uses the shared one there.
find_library(DEEPER_HDF5_STATIC libhdf5.a HINTS ${HDF5_LIBRARY_DIRS} NO_DEFAULT_PATH)
find_library(DEEPER_SZIP sz)
if(NOT (DEEPER_HDF5_STATIC AND DEEPER_SZIP))
  return()
endif()
set(static_hdf5 ${DEEPER_HDF5_STATIC} ${DEEPER_SZIP} ZLIB::ZLIB ${CMAKE_DL_LIBS} m)
set(CMAKE_REQUIRED_INCLUDES ${HDF5_INCLUDE_DIRS})
set(CMAKE_REQUIRED_LIBRARIES ${static_hdf5})
include(CheckCSourceCompiles)
check_c_source_compiles("#include <hdf5.h>
int main(void) { return H5Fopen(\"\", H5F_ACC_RDONLY, H5P_DEFAULT) < 0; }" DEEPER_HDF5_STATIC_LINKS)
unset(CMAKE_REQUIRED_INCLUDES)
unset(CMAKE_REQUIRED_LIBRARIES)
if(DEEPER_HDF5_STATIC_LINKS)
  set_target_properties(PkgConfig::HDF5 PROPERTIES INTERFACE_LINK_LIBRARIES "${static_hdf5}")
endif()
