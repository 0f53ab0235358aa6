cmake_minimum_required(VERSION 3.22)
# Run by every build of `deeper`: writes OUTPUT, a header with the commit of the sources, if it changed.
execute_process(COMMAND git describe --always --dirty --exclude=* WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define DEEPER_COMMIT \"@commit@\"\n" @ONLY)
