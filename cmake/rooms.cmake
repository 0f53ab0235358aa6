# deeper_room(TARGET): the sources of this folder become part of TARGET. Every room calls it, so that a new file needs no list.
# *_cuda.cpp and *.cu are for builds with CUDA only.
function(deeper_room target)
  file(GLOB cuda_sources CONFIGURE_DEPENDS *_cuda.cpp *.cu)
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(cuda_sources)
    list(REMOVE_ITEM sources ${cuda_sources})
  endif()
  target_sources(${target} PRIVATE ${sources})
  if(DEEPER_CUDA)
    target_sources(${target} PRIVATE ${cuda_sources})
  endif()
endfunction()
