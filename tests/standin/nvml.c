/* Stands in for NVML on a machine with two GPUs, of which CUDA was left the second alone: 0000:3b:00.0. NVML's number 0 is the
 * other one, by whose clock it is known. */
#include <string.h>

enum { SUCCESS = 0, NOT_FOUND = 6, TIMEOUT = 10 };
enum { OTHER_MHZ = 111, OUR_MHZ = 1980 };

static int gpus[2] = {OTHER_MHZ, OUR_MHZ};

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return error == SUCCESS ? "fine" : "not found"; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **device) {
    *device = &gpus[index];
    return index < 2 ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, int **device) {
    *device = &gpus[1];
    return strcmp(address, "0000:3b:00.0") == 0 ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetName(int *device, char *name, unsigned length) {
    strncpy(name, *device == OUR_MHZ ? "ours" : "other", length);
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(int *device, unsigned which, unsigned *mhz) {
    (void)which;
    *mhz = (unsigned)*device;
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(int *device, unsigned which, unsigned *mhz) { return nvmlDeviceGetClockInfo(device, which, mhz); }
int nvmlDeviceGetTemperature(int *device, unsigned which, unsigned *celsius) {
    (void)device;
    (void)which;
    *celsius = 40;
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(int *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 70000;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(int *device, unsigned long long *reasons) {
    (void)device;
    *reasons = 0;
    return SUCCESS;
}
int nvmlEventSetCreate(void **set) {
    *set = gpus;
    return SUCCESS;
}
int nvmlEventSetFree(void *set) {
    (void)set;
    return SUCCESS;
}
int nvmlDeviceRegisterEvents(int *device, unsigned long long kinds, void *set) {
    (void)kinds;
    (void)set;
    return *device == OUR_MHZ ? SUCCESS : NOT_FOUND;
}
int nvmlEventSetWait_v2(void *set, void *event, unsigned milliseconds) {
    (void)set;
    (void)event;
    (void)milliseconds;
    return TIMEOUT;
}
