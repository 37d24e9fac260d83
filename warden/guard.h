/*
 * One more who ends the container when this process is killed. The kernel does so by itself (PR_SET_PDEATHSIG), but not where a
 * security module gives lxc-start or the init a profile of its own: by that they lose the signal.
 */
#ifndef ROOST_WARDEN_GUARD_H
#define ROOST_WARDEN_GUARD_H

/* Nobody's child, so that it is no part of the container's life; ends by itself after this process, however that ended. */
void guard_begin(const char *cgroup);

#endif
