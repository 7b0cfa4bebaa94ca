/* python.exe: hands its arguments to the interpreter in the DLL beside it. */
#include <stdio.h>
#include <windows.h>

int wmain(int count, wchar_t **arguments)
{
    HMODULE library = LoadLibraryW(L"python311.dll");
    int (*run)(int, wchar_t **) =
        library ? (void *)GetProcAddress(library, "Py_Main") : NULL;

    if (run == NULL) {
        fprintf(stderr, "python311.dll: error %lu\n", GetLastError());
        return 120;
    }
    return run(count, arguments);
}
