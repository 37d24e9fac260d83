/* The last of what a program is given: its user, and of root's powers those that it may keep. */
#ifndef ROOST_GUEST_PRIVILEGES_H
#define ROOST_GUEST_PRIVILEGES_H

#include "accounts.h"
#include "fields.h"

/* Becomes the account with what an EXEC request says; a failure ends the launch. Nothing that needs
 * privileges may follow. */
void take_identity(const struct fields *request, const struct account *account);

#endif
