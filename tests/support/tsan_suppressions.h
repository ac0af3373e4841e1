// What ThreadSanitizer cannot see, for the file that has main(): libstdc++ counts the owners of an exception atomically,
// but it is not instrumented, so that an exception which one thread has read and another frees looks like a race.
#pragma once

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:std::__exception_ptr::exception_ptr::_M_release\n"; }
#endif
