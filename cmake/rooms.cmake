# deeper_room(TARGET): adds the sources of this folder to TARGET. Every room calls it, so new files are found automatically. Only builds
# with CUDA include *_cuda.cpp and *.cu.
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
