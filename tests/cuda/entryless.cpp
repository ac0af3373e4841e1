// A module that is no plug-in of ours.
extern "C" int something_else() { return 1; }
