/*
 * lxc-start itself keeps whether its container is frozen, for whoever asks by lxc-info or lxc-ls; it knows it from lxc-freeze
 * and lxc-unfreeze and from nobody else (v1). They do it once more, which has no effect on a container that stands already as
 * it shall.
 */
#ifndef ROOST_WARDEN_LXC_STATE_H
#define ROOST_WARDEN_LXC_STATE_H

#include "options.h"

#include <stdbool.h>
#include <sys/types.h>

/* `told` is called when lxc-start has been told, or could not be. */
void lxc_state_open(const struct options *options, void (*told)(void));

/* Not while something is being told. */
void lxc_state_tell(bool is_frozen);

bool lxc_state_is_being_told(void);

/* As it was told last; so it may be where that was interrupted. */
bool lxc_state_is_frozen(void);

/* Gives up what is being told: `told` follows. */
void lxc_state_interrupt(void);

/* The next container of an lxc-start is not frozen. */
void lxc_state_forget(void);

void lxc_state_child_ended(pid_t child);

#endif
