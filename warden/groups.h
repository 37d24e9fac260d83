/* The control groups of the container, all of which are below one name in every hierarchy. */
#ifndef ROOST_WARDEN_GROUPS_H
#define ROOST_WARDEN_GROUPS_H

#include <stdbool.h>

/* Looks for the hierarchies. */
void groups_open(const char *name);

/*
 * The file of a group for lxc-start to join until it has made its own: while it is on its way, whoever clears away what a killed
 * warden left finds it there. To be freed; NULL where there is no such hierarchy.
 */
char *groups_make_first(void);

/* False, with errno, where no hierarchy has a freezer for the container. */
bool groups_freeze(bool frozen);

/* All groups, also those that the container made and froze itself: in version 1 their processes do not die before. */
void groups_thaw_all(void);

/* Whether all of the container stands still. */
bool groups_are_frozen(void);

/* Removes what liblxc made, which nobody is in any more; with the one that has the name, or what is below it only. False, with
 * errno, if something is left. */
bool groups_remove(bool whole);

#endif
