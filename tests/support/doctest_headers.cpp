// The headers that the test programs share, parsed once: CMake makes a precompiled header only for a file that uses it.
