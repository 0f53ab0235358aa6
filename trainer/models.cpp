#include "trainer/model.h"
