// What the MPI library says about itself, for the user.
#pragma once

#include <string>

namespace deeper {

// "Open MPI v4.1.4, pml ob1, btl self, tcp, vader": its name and, for Open MPI, the components that it has
// opened for messages. With pml ob1, the BTLs transfer them: each pair of ranks uses the fastest that
// reaches. Call between MPI_Init and MPI_Finalize, and not at the same time as other functions of MPI.
std::string DescribeMpiLibrary();

}  // namespace deeper
