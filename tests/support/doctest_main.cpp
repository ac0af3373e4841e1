#define DOCTEST_CONFIG_IMPLEMENT  // the next line would say so too, had a precompiled header not read doctest.h before
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
