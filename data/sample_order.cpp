#include "data/sample_order.h"
