/*
 * The container between its mounts and its end: lxc-start, one run after the other where it is reset. A reboot inside goes on
 * in the same run.
 */
#ifndef ROOST_WARDEN_CONTAINER_H
#define ROOST_WARDEN_CONTAINER_H

#include "monitor.h"
#include "options.h"

#include <stdbool.h>
#include <sys/types.h>

/* `terminal` is the console's name. What is mounted later is the container's as well. */
void container_open(const struct options *options, const char *terminal);

/* A state of QEMU's, as `query-status` has it. */
const char *container_status(void);

/* Each answers the asker, now or when it is done. */
void container_continue(struct asker *asker);
void container_stop(struct asker *asker);
void container_power_down(struct asker *asker);
void container_reset(struct asker *asker);
void container_quit(struct asker *asker);

/* Somebody sent the warden a signal that ends it. */
void container_end_by_signal(void);

/* A child ended, as wait(2) has it. */
void container_child_ended(pid_t child, int status);

/* When all that ended were told. */
void container_children_told(bool is_any_left);

/*
 * Something has ended in it that the init is no parent of. An init that waits until it is alone, as systemd does when it goes
 * down, looks around when a child ends, and would not hear of this.
 */
void container_look_around(void);

/* Whether a program can be run in it now. */
bool container_can_run(void);

/* What the warden's exit status is to be, once the loop is over. */
int container_exit_status(void);

#endif
