// What ThreadSanitizer cannot see, for the file that has main(): libstdc++ counts the owners of an exception and of the text
// in a std::runtime_error atomically, but it is not instrumented, so that what one thread has read and another frees looks
// like a race.
#pragma once

#if defined(__SANITIZE_THREAD__)
// Visible: the sanitizer is a shared library that looks for it in the program.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n"
         "race:std::runtime_error::~runtime_error\n";
}
#endif
