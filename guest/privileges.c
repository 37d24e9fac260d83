/* See privileges.h. */
#define _GNU_SOURCE
#include "privileges.h"

#include "launch.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void set_capabilities(uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        fail_launch("capget");
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        /* Never more than the kernel has: an unknown bit is an error to it. */
        data[i].permitted &= (uint32_t)(permitted >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = data[i].permitted & (uint32_t)(inheritable >> (32 * i));
    }
    if (syscall(SYS_capset, &header, data) < 0)
        fail_launch("capset");
}

static void drop_bounding_set(uint64_t kept)
{
    for (unsigned long capability = 0; capability < 64; capability++) {
        int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);

        if (held < 0)
            return;
        if (held == 1 && (kept >> capability & 1) == 0 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            fail_launch("PR_CAPBSET_DROP %lu", capability);
    }
}

static void raise_ambient(uint64_t ambient)
{
    for (unsigned long capability = 0; capability < 64; capability++)
        if ((ambient >> capability & 1) != 0 &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            fail_launch("PR_CAP_AMBIENT_RAISE %lu", capability);
}

/* The user's numbers, and the capabilities that go with them: root keeps those that are allowed, another
 * user only the ambient ones. */
void take_identity(const struct fields *request, const struct account *account)
{
    uint64_t allowed = UINT64_MAX, ambient = 0;
    bool limited = read_u64(request, TAG_CAPABILITIES, &allowed);
    bool has_ambient = read_u64(request, TAG_AMBIENT, &ambient) && ambient != 0;

    if (limited)
        drop_bounding_set(allowed);
    if (setgroups(account->group_count, account->groups) < 0)
        fail_launch("setgroups");
    if (setresgid(account->gid, account->gid, account->gid) < 0)
        fail_launch("setresgid %u", account->gid);
    if (has_ambient && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        fail_launch("PR_SET_KEEPCAPS");
    if (setresuid(account->uid, account->uid, account->uid) < 0)
        fail_launch("setresuid %u", account->uid);
    if (limited || has_ambient)
        set_capabilities(account->uid == 0 ? allowed : ambient, ambient);
    raise_ambient(ambient);
    if (has_field(request, TAG_NO_NEW_PRIVILEGES) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail_launch("PR_SET_NO_NEW_PRIVS");
}
