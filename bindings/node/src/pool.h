// Threads for calls that may take a while. Node's own pool is left to the file system and others.
#pragma once

#include <functional>

namespace expert_node {

using Task = std::function<void()>;

// On one of a few threads that are never joined: calls of a few milliseconds.
void run_in_pool(Task task);
// On a thread of its own: calls that may take seconds.
void run_in_thread(Task task);

// Work of this process comes to an end: what has not begun is never begun, what runs is waited for, so that no thread uses
// what exit() destroys. False where some of it still ran after `seconds`.
bool end_work(double seconds);
bool work_ends();  // since then, for work that can stop early
void begin_work();  // again

}  // namespace expert_node
