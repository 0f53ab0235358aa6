# Runs at install time. Copies the shared libraries of one component, and sets the search paths so that the archive works at any path.
# Variables from archive.cmake: component, patchelf, programs (of the build tree), plugins, cuda_libraries (loaded at run time).
if(NOT patchelf)
  message(FATAL_ERROR "the archive needs patchelf: ./launch/install-deps, then configure again")
endif()
set(prefix "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")

# DT_RPATH instead of DT_RUNPATH: it precedes LD_LIBRARY_PATH, so that the archive's libraries are never mixed with the machine's.
function(set_rpath file rpath)
  execute_process(COMMAND ${patchelf} --force-rpath --set-rpath ${rpath} ${file} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# Copies the library under the name that programs load, without links, which copying between machines may lose.
function(install_library file directory rpath)
  get_filename_component(name ${file} NAME)
  message(STATUS "Installing: ${CMAKE_INSTALL_PREFIX}/${directory}/${name}")
  file(MAKE_DIRECTORY ${prefix}/${directory})
  file(REAL_PATH ${file} file)
  file(COPY_FILE ${file} ${prefix}/${directory}/${name})
  set_rpath(${prefix}/${directory}/${name} ${rpath})
endfunction()

set(glibc "^(ld-linux|lib(anl|c|dl|m|mvec|nsl|pthread|resolv|rt|util)\\.so)")
file(GET_RUNTIME_DEPENDENCIES EXECUTABLES ${programs} LIBRARIES ${plugins} ${cuda_libraries} RESOLVED_DEPENDENCIES_VAR libraries
     PRE_EXCLUDE_REGEXES ${glibc})
list(APPEND libraries ${cuda_libraries})
list(REMOVE_DUPLICATES libraries)
set(nvidia "/lib(cudnn|cublas|nvrtc|nccl)[^/]*$")
if(component STREQUAL deeper)
  list(FILTER libraries EXCLUDE REGEX ${nvidia})
  foreach(program ${programs})
    get_filename_component(name ${program} NAME)
    string(REPLACE orterun mpirun name ${name})
    set_rpath(${prefix}/bin/${name} "$ORIGIN/../lib")
  endforeach()
  foreach(plugin ${plugins})
    install_library(${plugin} lib/openmpi "$ORIGIN/..")
  endforeach()
else()
  list(FILTER libraries INCLUDE REGEX ${nvidia})
endif()
foreach(library ${libraries})
  install_library(${library} lib "$ORIGIN")
endforeach()
