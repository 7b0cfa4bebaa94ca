/* A service that behaves by the name it runs under: good, slow, never, dies. */
#include <string.h>
#include <windows.h>

static SERVICE_STATUS_HANDLE handle;
static SERVICE_STATUS status;
static HANDLE asked;
static BOOL never;

static void set(DWORD state)
{
    status.dwServiceType = SERVICE_WIN32_OWN_PROCESS;
    status.dwCurrentState = state;
    status.dwControlsAccepted = state == SERVICE_RUNNING ? SERVICE_ACCEPT_STOP : 0;
    status.dwWaitHint = 2000;
    SetServiceStatus(handle, &status);
}

static void WINAPI control(DWORD code)
{
    if (code != SERVICE_CONTROL_STOP) {
        set(status.dwCurrentState);
        return;
    }
    set(SERVICE_STOP_PENDING);
    if (!never)
        SetEvent(asked);
}

static void WINAPI service(DWORD count, LPSTR *names)
{
    asked = CreateEventA(NULL, TRUE, FALSE, NULL);
    never = strstr(names[0], "never") != NULL;
    handle = RegisterServiceCtrlHandlerA(names[0], control);
    set(SERVICE_START_PENDING);
    if (strstr(names[0], "dies")) {
        /* Said by Windows itself of a process that ends; Wine does not. */
        status.dwWin32ExitCode = ERROR_PROCESS_ABORTED;
        set(SERVICE_STOPPED);
        return;
    }
    set(SERVICE_RUNNING);
    WaitForSingleObject(asked, INFINITE);
    if (strstr(names[0], "slow"))
        Sleep(1500);
    set(SERVICE_STOPPED);
}

int main(void)
{
    char any[] = "";
    SERVICE_TABLE_ENTRYA table[] = {{any, service}, {NULL, NULL}};
    return !StartServiceCtrlDispatcherA(table);
}
